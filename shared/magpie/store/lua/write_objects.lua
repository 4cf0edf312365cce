-- ARGV: prefix, bundle, its spaces and dimensions, product, sha256, event, bytes, number of objects and, where
-- there is one, the image's fingerprint.
-- Returns nothing if all is well, `withdrawn` if nobody wants the image there any more, `dropped` if it was on its
-- way to an index that was dropped and the one that serves lacks it, or the spaces and dimensions
-- that the bundle's other objects have, if they are others.
local bundle, spaces, product, sha256, event, bytes = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local field = image_field(product, sha256)
local objects = objects_prefix .. bundle

local line = redis.call('HGET', images, field)
if not line then return 'withdrawn' end
if not is_wanted(bundle) then return is_under(serving, field) and 'withdrawn' or 'dropped' end
if redis.call('EXISTS', objects) == 1 then
  local known = redis.call('HGET', bundles, bundle)
  if known ~= spaces then return known end
end
redis.call('HSET', bundles, bundle, spaces)
if redis.call('HGET', objects, field) ~= bytes then
  redis.call('HSET', objects, field, bytes)
  announce(product, sha256)
end
settle(bundle, field)
mark_due(field)
if ARGV[9] then redis.call('HSET', fingerprints, field, ARGV[9]) end
local entry = cjson.decode(line)
if serving then -- how many objects it has under each of two bundles
  local counts = {[bundle] = tonumber(ARGV[8])}
  for _, other in ipairs(from and {from, to} or {}) do
    if other ~= bundle then counts[other] = (entry.counts or {})[other] or (other == serving and entry.objects) or nil end
  end
  entry.counts = counts
  if bundle ~= serving then
    redis.call('HSET', images, field, cjson.encode(entry))
    return false
  end
end
entry.state, entry.reason, entry.objects = INDEXED, '', tonumber(ARGV[8])
remember(entry, event)
enter(field, entry)
return false
