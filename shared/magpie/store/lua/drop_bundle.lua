-- Two steps, so that what lies elsewhere can be removed between them. ARGV: prefix, bundle, the one that serves where
-- none is written, `begin` or `end`, entry for the history. Returns nothing if all is well, else what stands against it.
local bundle = ARGV[2]
if bundle == (serving or ARGV[3]) then return 'serves' end
local of_change_over = bundle == from or bundle == to
if ARGV[4] == 'begin' then
  if of_change_over and not dropping then
    local waiting = redis.call('ZCARD', due(serving))
    if waiting > 0 then return waiting .. ' pictures are still to be embedded for ' .. serving end
  end
  if of_change_over then redis.call('HSET', changeover, 'dropping', bundle) end -- its index takes nothing any more
  return false
end
redis.call('UNLINK', objects_prefix .. bundle, due(bundle), failed(bundle))
redis.call('HDEL', bundles, bundle)
redis.call('HDEL', customer_prefix .. 'snapshots', bundle)
if of_change_over then
  local other = bundle == from and to or from
  redis.call('UNLINK', changeover, due(other), failed(other))
end
redis.call('RPUSH', changeover .. ':history', ARGV[5])
redis.call('LTRIM', changeover .. ':history', -200, -1)
return false
