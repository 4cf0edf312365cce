-- KEYS: objects of a bundle. ARGV: the mark, then field, SHA-1 of the value that a snapshot has. Returns how many values
-- were those, and are the mark now.
local objects, mark, archived = KEYS[1], ARGV[1], 0
for i = 2, #ARGV, 2 do
  local value = redis.call('HGET', objects, ARGV[i])
  if value and redis.sha1hex(value) == ARGV[i + 1] then
    redis.call('HSET', objects, ARGV[i], mark)
    archived = archived + 1
  end
end
return archived
