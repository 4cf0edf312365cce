-- ARGV: prefix, bundle, seconds that an image may be on its way, how many may be on their way at once. Returns images
-- to send and their scores, {image, score, ...}, as many as there is room for. A score is the same until the image is
-- marked as sent or makes a step: whoever dies in between has sent the same event that comes next.
local bundle, patience, backlog = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if bundle ~= from and bundle ~= to then return {} end
local lost_since = now - patience
local room = backlog - redis.call('ZCOUNT', due(bundle), string.format('(%.6f', lost_since), '+inf')
if room <= 0 then return {} end
return redis.call('ZRANGEBYSCORE', due(bundle), '-inf', string.format('%.6f', lost_since), 'WITHSCORES', 'LIMIT', 0, room)
