-- ARGV: prefix, bundle to go to, the one that serves where none is written, backlog. Returns nothing if a change-over
-- to it is under way now, or what stands against it: `serves`, or the bundles of another change-over.
local wanted = ARGV[2]
if from then
  if to == wanted and not dropping then return false end
  return {from, to, dropping or ''}
end
local current = serving or ARGV[3]
if current == wanted then return 'serves' end
redis.call('SET', serving_key, current)
redis.call('HSET', changeover, 'from', current, 'to', wanted, 'switched', 0, 'paused', 0, 'listed', 0,
  'backlog', ARGV[4], 'started', now)
return false
