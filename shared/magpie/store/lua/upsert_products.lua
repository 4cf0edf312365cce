-- ARGV: prefix, the bundle that serves where none is written, seconds that an image may be on its way, then for each product: id, bytes, images joined by
-- spaces, names and types joined by spaces. Returns for each product: change, then the images that are neither in the index nor on their way.
local bundle, patience = serving or ARGV[2], tonumber(ARGV[3])
local UNCHANGED, UPDATED, CREATED = 3, 2, 1

local function is_on_its_way(field, entry)
  if entry.state < DETECTING or entry.state > INDEXING then return false end
  return tonumber(redis.call('ZSCORE', unfinished, field)) > now - patience
end

local function write(id, bytes, shas)
  local before = redis.call('HGET', products, id)
  if before == bytes then return UNCHANGED end
  local lists = {}
  for sha256 in string.gmatch(shas, '%S+') do lists[sha256] = true end
  local withdrawn = {}
  for sha256 in string.gmatch(redis.call('HGET', listed, id) or '', '%S+') do
    if not lists[sha256] then
      withdraw(id, sha256)
      table.insert(withdrawn, sha256)
    end
  end
  redis.call('HSET', products, id, bytes)
  redis.call('HSET', listed, id, shas)
  for sha256 in pairs(lists) do
    local field = image_field(id, sha256)
    if redis.call('HEXISTS', images, field) == 0 then
      enter(field, {state = AWAITING_UPLOAD, reason = '', objects = 0, events = {}})
    end
  end
  announce(id, table.concat(withdrawn, ' '))
  return before and UPDATED or CREATED
end

local answer = {}
for i = 4, #ARGV, 4 do
  local id, bytes, shas = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  learn(id, ARGV[i + 3]) -- also of an unchanged product: an earlier release may have written it
  local row = {write(id, bytes, shas)}
  for sha256 in string.gmatch(shas, '%S+') do
    local field = image_field(id, sha256)
    if redis.call('HEXISTS', objects_prefix .. bundle, field) == 0 then
      local entry = cjson.decode(redis.call('HGET', images, field))
      if not is_on_its_way(field, entry) then table.insert(row, sha256) end
      if entry.state == INDEXED then -- under another bundle: for this one the way begins anew
        entry.state = AWAITING_UPLOAD
        enter(field, entry)
      end
    end
  end
  table.insert(answer, row)
end
return answer
