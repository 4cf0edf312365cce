-- Brings the documents of some products of one shard up to date; doing it twice is doing it once.
-- KEYS: registry, fence. ARGV: the writer's number, prefix of the documents' keys, then for each product:
--   id; digest of the product: '' it is gone, '=' as it was; fields that it has not, and fields with their values, each as
--   a count and then so many arguments; how many images follow, and for each:
--     sha256; digest of its objects, '' none any more; how many objects, and for each: Candidate, vector.
-- An entry of the registry is {p = digest, i = {sha256 = {how many objects, digest}}}. Returns 0 if a later writer has
-- fenced this one off, and nothing is written; else how many documents were written.
local registry, fence = KEYS[1], KEYS[2]
local at, written = 3, 0
if tonumber(redis.call('GET', fence) or 0) > tonumber(ARGV[1]) then return 0 end

local function take()
  at = at + 1
  return ARGV[at - 1]
end

local function take_some()
  local some = {}
  for i = 1, tonumber(take()) do some[i] = take() end
  return some
end

local function key_of(product, sha256, row)
  return ARGV[2] .. product .. '\0' .. sha256 .. '\0' .. row
end

local function remove(product, sha256, from, to)
  for row = from, to - 1 do redis.call('UNLINK', key_of(product, sha256, row)) end
end

local function write(key, without, fields)
  if #without > 0 then redis.call('HDEL', key, unpack(without)) end
  redis.call('HSET', key, unpack(fields))
  written = written + 1
end

local function rows_of(entry, sha256)
  return entry.i[sha256] and entry.i[sha256][1] or 0
end

-- What the registry says can be wrong only if somebody else has removed documents.
local function are_there(product, sha256, count)
  for row = 0, count - 1 do
    if redis.call('EXISTS', key_of(product, sha256, row)) == 0 then return false end
  end
  return true
end

while at <= #ARGV do
  local product, digest = take(), take()
  local without, fields = take_some(), take_some()
  local line = redis.call('HGET', registry, product)
  local entry = line and cjson.decode(line) or {p = '', i = {}}
  local fresh = {}
  for _ = 1, tonumber(take()) do
    local sha256, made_of, count = take(), take(), tonumber(take())
    local known = entry.i[sha256]
    if known and known[2] == made_of and are_there(product, sha256, count) then
      at = at + 2 * count
    else
      remove(product, sha256, count, rows_of(entry, sha256))
      for row = 0, count - 1 do
        local document = {'object', take(), 'vector', take(), unpack(fields)}
        write(key_of(product, sha256, row), without, document)
      end
      entry.i[sha256] = made_of ~= '' and {count, made_of} or nil
      fresh[sha256] = true
    end
  end
  for sha256, known in pairs(entry.i) do
    if digest == '' then
      remove(product, sha256, 0, known[1])
    elseif digest ~= '=' and digest ~= entry.p and not fresh[sha256] then
      for row = 0, known[1] - 1 do write(key_of(product, sha256, row), without, fields) end
    end
  end
  if digest ~= '=' then entry.p = digest end
  if digest == '' or next(entry.i) == nil then
    redis.call('HDEL', registry, product)
  else
    redis.call('HSET', registry, product, cjson.encode(entry))
  end
end
return written + 1
