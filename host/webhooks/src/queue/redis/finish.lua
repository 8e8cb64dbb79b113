-- Removes the events of a batch that was sent.
-- KEYS: the stream; the batch. ARGV: the ID of the batch.
local id, last = unpack(redis.call('HMGET', KEYS[2], 'id', 'last'))
if id ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[2])
local time, number = string.match(last, '^(%d+)-(%d+)$')
return redis.call('XTRIM', KEYS[1], 'MINID', time .. '-' .. string.format('%d', tonumber(number) + 1))
