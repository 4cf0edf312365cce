-- ARGV: prefix, field, value. Returns 1 if there is a change-over, whose record has it now.
if not from then return 0 end
redis.call('HSET', changeover, ARGV[2], ARGV[3])
return 1
