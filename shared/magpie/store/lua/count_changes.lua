-- KEYS: changes. ARGV: cursor, as read_changes.lua has it; at most so many. Returns how many entries come after it, and
-- the time of the first of them, milliseconds.
local cursor, limit = ARGV[1], tonumber(ARGV[2])
local start = cursor == '' and '-' or '(' .. string.match(cursor, '%S+')
local entries = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', limit)
if #entries == 0 then return {0, 0} end
return {#entries, tonumber(string.match(entries[1][1], '%d+'))}
