-- ARGV: prefix, bundle. What failed towards its index is due again. Returns how many.
local lost = redis.call('HKEYS', failed(ARGV[2]))
for _, field in ipairs(lost) do
  redis.call('HDEL', failed(ARGV[2]), field)
  mark_due(field)
end
return #lost
