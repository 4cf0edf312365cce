-- ARGV: prefix, then ids. Returns for each id: 1 if it existed.
local answer = {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local existed = redis.call('HDEL', products, id)
  if existed == 1 then
    unlearn(id)
    local shas = redis.call('HGET', listed, id)
    redis.call('HDEL', listed, id)
    for sha256 in string.gmatch(shas, '%S+') do withdraw(id, sha256) end
    announce(id, shas)
  end
  table.insert(answer, existed)
end
return answer
