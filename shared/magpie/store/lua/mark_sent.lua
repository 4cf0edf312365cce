-- ARGV: prefix, bundle, then images that have been sent towards its index.
for i = 3, #ARGV do redis.call('ZADD', due(ARGV[2]), 'XX', now, ARGV[i]) end
return false
