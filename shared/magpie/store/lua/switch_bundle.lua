-- The one step in which another bundle begins to serve. ARGV: prefix, bundle that serves now, bundle to serve, whether
-- images that failed under it may be missing (1), entry for the history. Returns nothing if it serves now, else what
-- stands against it.
local now_serving, next_serving, allow_missing, entry = ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]
if not from or serving ~= now_serving or dropping then return 'it was changed meanwhile' end
local back = next_serving == from
if next_serving ~= to and not back then return 'it was changed meanwhile' end
if not back then
  if redis.call('HGET', changeover, 'listed') ~= '1' then return 'not listed yet' end
  local waiting = redis.call('ZCARD', due(next_serving))
  if waiting > 0 then return waiting .. ' pictures are still to be embedded' end
  local lost = redis.call('HLEN', failed(next_serving))
  if lost > 0 and not allow_missing then return lost .. ' pictures failed' end
end
redis.call('SET', serving_key, next_serving)
redis.call('HSET', changeover, 'switched', back and 0 or 1, 'paused', back and 1 or 0, 'changed', now)
redis.call('RPUSH', changeover .. ':history', entry)

-- The ledger tells of the index that serves: what failed under one bundle alone failed, or is there, from now on.
for _, field in ipairs(redis.call('HKEYS', failed(now_serving))) do
  local line = redis.call('HGET', images, field)
  if line and is_under(next_serving, field) then
    local known = cjson.decode(line)
    known.state, known.reason = INDEXED, ''
    enter(field, known)
  end
end
local reasons = redis.call('HGETALL', failed(next_serving))
for i = 1, #reasons, 2 do
  local line = redis.call('HGET', images, reasons[i])
  if line then
    local known = cjson.decode(line)
    known.state, known.reason = FAILED, reasons[i + 1]
    enter(reasons[i], known)
  end
end
return false
