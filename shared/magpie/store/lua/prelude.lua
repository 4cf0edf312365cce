-- Stands before every script that writes. One script is one atomic step: a product, its images' ledger, its objects
-- and the entry in the change stream are never seen apart.
local products, listed, images, unfinished, bundles, changes, fingerprints, typed, attributes =
  unpack(KEYS)
local objects_prefix = ARGV[1] -- of the hash of objects of each bundle; it has the customer's hash tag, as all keys

-- States of magpie.v1.ImageStatus.
local AWAITING_UPLOAD, DETECTING, EMBEDDING, INDEXING, INDEXED, FAILED = 1, 2, 3, 4, 5, 6
local CHANGES_KEPT = 100000
local EVENTS_KEPT = 8 -- of each image, to tell a late redelivery from a new upload

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000 -- seconds

local function image_field(product, sha256)
  return product .. '\0' .. sha256
end

-- `shas`: the images whose objects changed, joined by spaces. `at` tells an entry from one that takes its id, which
-- has milliseconds only, after Redis has lost data.
local function announce(product, shas)
  redis.call('XADD', changes, 'MAXLEN', '~', CHANGES_KEPT, '*', 'product', product, 'images', shas,
    'at', time[1] .. '.' .. time[2])
end

-- Forgets an image that its product no longer lists.
local function withdraw(product, sha256)
  local field = image_field(product, sha256)
  redis.call('HDEL', images, field)
  redis.call('HDEL', fingerprints, field)
  redis.call('ZREM', unfinished, field)
  for _, bundle in ipairs(redis.call('HKEYS', bundles)) do
    redis.call('HDEL', objects_prefix .. bundle, field)
  end
end

-- Counts a product's names and types in place of those that it had. `types`: as `brand:text`, joined by spaces.
local function learn(product, types)
  local before = redis.call('HGET', typed, product) or ''
  if types == before then return end
  for entry in string.gmatch(before, '%S+') do
    if redis.call('HINCRBY', attributes, entry, -1) <= 0 then redis.call('HDEL', attributes, entry) end
  end
  for entry in string.gmatch(types, '%S+') do redis.call('HINCRBY', attributes, entry, 1) end
  redis.call('HSET', typed, product, types)
end

local function unlearn(product)
  learn(product, '')
  redis.call('HDEL', typed, product)
end

-- `entry` of the ledger: state, reason, objects (how many), events (ids of the last uploads that moved it).
local function enter(field, entry)
  redis.call('HSET', images, field, cjson.encode(entry))
  if entry.state == INDEXED or entry.state == FAILED then
    redis.call('ZREM', unfinished, field)
  else
    redis.call('ZADD', unfinished, now, field)
  end
end

local function has_seen(entry, event)
  for _, seen in ipairs(entry.events) do
    if seen == event then return true end
  end
  return false
end

local function remember(entry, event)
  if not has_seen(entry, event) then
    table.insert(entry.events, event)
    if #entry.events > EVENTS_KEPT then table.remove(entry.events, 1) end
  end
end
