-- ARGV: prefix, product, sha256, event, state, reason, bundle ('': the one that serves). Returns 1 if the ledger took it, 0 if the product no longer
-- lists the image, or this upload, or a later one, has already been indexed.
local field, event, bundle = image_field(ARGV[2], ARGV[3]), ARGV[4], ARGV[7]
if bundle ~= '' and serving and bundle ~= serving and (is_wanted(bundle) or is_under(serving, field)) then
  return step_aside(bundle, field, tonumber(ARGV[5]), ARGV[6])
end
local line = redis.call('HGET', images, field)
if not line then return 0 end
local entry = cjson.decode(line)
if entry.state == INDEXED and has_seen(entry, event) then return 0 end
entry.state, entry.reason = tonumber(ARGV[5]), ARGV[6]
remember(entry, event)
enter(field, entry)
return 1
