-- Stands after the prelude in every script that writes: under which bundles a customer's images are wanted.
-- `serving` is the bundle that answers the customer's searches. Nothing is written there before the first change-over,
-- and then one bundle is all there is. The hash `changeover` is the change-over under way: `from`, `to`, and
-- `dropping` once one of them is being removed. While it lasts, an image that one of the two indexes has is due in the
-- other: `due:BUNDLE` is a sorted set, image -> when it last made a step towards that index, 0: not sent yet. What
-- cannot be embedded stands in the hash `failed:BUNDLE` with its reason.
local customer_prefix = string.sub(objects_prefix, 1, -#'objects:' - 1)
local serving_key, changeover = customer_prefix .. 'serving', customer_prefix .. 'changeover'
local serving = redis.call('GET', serving_key)
local from, to, dropping = unpack(redis.call('HMGET', changeover, 'from', 'to', 'dropping'))

local function due(bundle) return customer_prefix .. 'due:' .. bundle end
local function failed(bundle) return customer_prefix .. 'failed:' .. bundle end

local function is_under(bundle, field)
  return redis.call('HEXISTS', objects_prefix .. bundle, field) == 1
end

-- Whether the index of a bundle still takes objects.
local function is_wanted(bundle)
  if not serving or bundle == serving then return true end
  return (bundle == from or bundle == to) and bundle ~= dropping
end

-- Of the two indexes of a change-over, those that lack the image get it.
local function mark_due(field)
  if not from then return end
  for _, bundle in ipairs({from, to}) do
    if bundle ~= dropping and not is_under(bundle, field) and redis.call('HEXISTS', failed(bundle), field) == 0 then
      redis.call('ZADD', due(bundle), 'NX', 0, field)
    end
  end
end

local function settle(bundle, field)
  redis.call('ZREM', due(bundle), field)
  redis.call('HDEL', failed(bundle), field)
end

-- A step of an image towards an index that does not serve: no news for its entry in the ledger.
local function step_aside(bundle, field, state, reason)
  if redis.call('HEXISTS', images, field) == 0 or not is_wanted(bundle) or is_under(bundle, field) then return 0 end
  settle(bundle, field)
  if state == FAILED then
    redis.call('HSET', failed(bundle), field, reason)
    mark_due(field) -- should the one that serves lack it
  else
    redis.call('ZADD', due(bundle), now, field)
  end
  return 1
end

local withdraw_objects = withdraw
local function withdraw(product, sha256)
  withdraw_objects(product, sha256)
  if from then
    for _, bundle in ipairs({from, to}) do settle(bundle, image_field(product, sha256)) end
  end
end
