-- KEYS: one customer's cached ranking config, a hash of version and config. ARGV: version, config, seconds to keep it.
-- Two writers may come here in the wrong order: an older version never replaces a newer one.
local cached = tonumber(redis.call('HGET', KEYS[1], 'version') or -1)
if cached > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'config', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
