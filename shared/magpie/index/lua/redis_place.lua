-- How far one customer's change stream was followed, and who may go on. KEYS: place (hash), lock. ARGV: verb, then:
-- acquire: milliseconds. Returns {number} of the new holder, or {} while somebody else holds it, and as second whether
--   the holder before left without releasing it: then it may still write, and has to be fenced off.
-- extend: number, milliseconds. From here on documents change: whoever reads meanwhile reads again.
-- note: number, milliseconds, field, value, ... As extend, with something to remember.
-- finish: number, milliseconds, field, value, ... The documents are those of one moment again.
-- release: number.
-- The last four return 1, or 0 if the lock is no longer that holder's.
local place, lock = KEYS[1], KEYS[2]
local verb = ARGV[1]

if verb == 'acquire' then
  if redis.call('EXISTS', lock) == 1 then return {} end
  -- By the clock, so that numbers grow even after the place was lost.
  local time = redis.call('TIME')
  local number = tonumber(time[1]) * 1000000 + tonumber(time[2])
  number = math.max(number, tonumber(redis.call('HGET', place, 'number') or 0) + 1)
  number = string.format('%.0f', number)
  redis.call('SET', lock, number, 'PX', ARGV[2])
  local left_behind = redis.call('HEXISTS', place, 'holder')
  redis.call('HSET', place, 'number', number, 'holder', number)
  return {number, left_behind}
end

local number = ARGV[2]
if redis.call('GET', lock) ~= number then return 0 end
if verb == 'release' then
  redis.call('DEL', lock)
  redis.call('HDEL', place, 'holder')
  return 1
end
redis.call('PEXPIRE', lock, ARGV[3])
if #ARGV > 3 then redis.call('HSET', place, unpack(ARGV, 4)) end
if verb == 'finish' then
  redis.call('HINCRBY', place, 'version', 1)
  redis.call('HDEL', place, 'writing')
elseif redis.call('HEXISTS', place, 'writing') == 0 then
  redis.call('HINCRBY', place, 'version', 1)
  redis.call('HSET', place, 'writing', 1)
end
return 1
