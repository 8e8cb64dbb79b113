-- Returns the next events of a queue, if no other sender sends.
-- KEYS: the stream; the sender; the batch that is being sent.
-- ARGV: the sender; how long it may send, in ms; the most events of a batch, and of their bytes; how long an event may wait
-- for others, in ms; the ID of a new batch; time in ms after which an unused key is removed.
-- Returns: what to do, a time in ms or the ID of the batch, the number of events, the age of the oldest in ms, the events.
local stream, sender, batch = KEYS[1], KEYS[2], KEYS[3]
local length = redis.call('XLEN', stream)
local age = 0
if length > 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1][1]
  age = math.max(0, now - tonumber(string.match(first, '^%d+')))
end
local current = redis.call('GET', sender)
local left = redis.call('PTTL', sender)
-- A claim that seems to last longer than any was made before the clock was set back: its sender may be dead.
if current and current ~= ARGV[1] and left <= tonumber(ARGV[2]) then
  return {'other', tostring(left), length, age, {}}
end
if length == 0 then
  redis.call('DEL', sender, batch)
  return {'none', '', 0, 0, {}}
end
local id, last = unpack(redis.call('HMGET', batch, 'id', 'last'))
local entries = {}
if id then
  entries = redis.call('XRANGE', stream, '-', last)
end
if #entries == 0 then
  local most = tonumber(ARGV[3])
  local wait = tonumber(ARGV[5])
  if length < most and age < wait then
    redis.call('DEL', sender, batch)
    return {'later', tostring(wait - age), length, age, {}}
  end
  local bytes = 0
  for _, entry in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', most)) do
    bytes = bytes + #entry[2][2]
    if #entries > 0 and bytes > tonumber(ARGV[4]) then
      break
    end
    entries[#entries + 1] = entry
  end
  id = ARGV[6]
  redis.call('HSET', batch, 'id', id, 'last', entries[#entries][1])
end
redis.call('PEXPIRE', batch, ARGV[7])
redis.call('SET', sender, ARGV[1], 'PX', ARGV[2])
local events = {}
for place, entry in ipairs(entries) do
  events[place] = entry[2][2]
end
return {'batch', id, length, age, events}
