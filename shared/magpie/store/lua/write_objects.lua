-- ARGV: prefix, bundle, its spaces and dimensions, product, sha256, event, bytes, number of objects and, where
-- there is one, the image's fingerprint.
-- Returns nothing if all is well, `withdrawn` if the product no longer lists the image, or the spaces and dimensions
-- that the bundle's other objects have, if they are others.
local bundle, spaces, product, sha256, event, bytes = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local field = image_field(product, sha256)
local objects = objects_prefix .. bundle

local line = redis.call('HGET', images, field)
if not line then return 'withdrawn' end
if redis.call('EXISTS', objects) == 1 then
  local known = redis.call('HGET', bundles, bundle)
  if known ~= spaces then return known end
end
redis.call('HSET', bundles, bundle, spaces)
if redis.call('HGET', objects, field) ~= bytes then
  redis.call('HSET', objects, field, bytes)
  announce(product, sha256)
end
if ARGV[9] then redis.call('HSET', fingerprints, field, ARGV[9]) end
local entry = cjson.decode(line)
entry.state, entry.reason, entry.objects = INDEXED, '', tonumber(ARGV[8])
remember(entry, event)
enter(field, entry)
return false
