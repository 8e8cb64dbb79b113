-- Extends the right to send, or gives it up if the time is 0.
-- KEYS: the sender. ARGV: the sender; the time in ms.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  return redis.call('DEL', KEYS[1])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
