-- ARGV: prefix, then images. Those that either index of the change-over has are due in the one that lacks them.
for i = 2, #ARGV do
  local field = ARGV[i]
  if from and redis.call('HEXISTS', images, field) == 1 and (is_under(from, field) or is_under(to, field)) then
    mark_due(field)
  end
end
return false
