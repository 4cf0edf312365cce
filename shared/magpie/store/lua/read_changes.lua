-- KEYS: products, objects of a bundle, changes, snapshots. ARGV: id and time of the last entry that the reader has seen,
-- '' if the stream did not exist then; how many entries to read; the bundle. Returns nothing if the stream no longer has that entry (the
-- reader fell too far behind, or Redis lost data), so that the reader has to load all; else id and time of the last
-- entry read, whether there are more, products {id, bytes or nil, ...}, objects {product, sha256, bytes or nil, ...}, and
-- the generation of the bundle's newest snapshot.
local products, objects, changes, snapshots = unpack(KEYS)
local cursor, count = ARGV[1], tonumber(ARGV[2])
local generation = tonumber(redis.call('HGET', snapshots, ARGV[3]) or 0)

-- An entry is {id, {'product', id, 'images', shas, 'at', time}}.
local function cursor_at(entry)
  return entry[1] .. ' ' .. entry[2][6]
end

if cursor == '' then
  if redis.call('EXISTS', changes) == 1 then return false end
  return {'', 0, {}, {}, generation}
end
local entries = redis.call('XRANGE', changes, string.match(cursor, '%S+'), '+', 'COUNT', count + 1)
if #entries == 0 or cursor_at(entries[1]) ~= cursor then return false end

local changed_products, changed_objects, seen = {}, {}, {}
for i = 2, #entries do
  local _, product, _, shas = unpack(entries[i][2])
  if not seen[product] then
    seen[product] = true
    table.insert(changed_products, product)
    table.insert(changed_products, redis.call('HGET', products, product))
  end
  for sha256 in string.gmatch(shas, '%S+') do
    local field = product .. '\0' .. sha256
    if not seen[field] then
      seen[field] = true
      table.insert(changed_objects, product)
      table.insert(changed_objects, sha256)
      table.insert(changed_objects, redis.call('HGET', objects, field))
    end
  end
end
return {cursor_at(entries[#entries]), #entries == count + 1 and 1 or 0, changed_products, changed_objects, generation}
