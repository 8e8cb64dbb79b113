-- Adds events to queues, and notes what they report.
-- KEYS: the set of what was reported as there, then the streams.
-- ARGV: time in ms after which an unused key is removed; for each stream its longest length; then for each event: '+' or '-'
-- and a name, or nothing; the number of its streams; their places, from 1; its text.
local keep = ARGV[1]
local streams = #KEYS - 1
local at = 2 + streams
local added = {}
while at <= #ARGV do
  local change = ARGV[at]
  local count = tonumber(ARGV[at + 1])
  local is_news = 1
  if change ~= '' then
    local command = string.sub(change, 1, 1) == '+' and 'SADD' or 'SREM'
    is_news = redis.call(command, KEYS[1], string.sub(change, 2))
    redis.call('PEXPIRE', KEYS[1], keep)
  end
  if is_news == 1 then
    for place = 1, count do
      local stream = KEYS[1 + tonumber(ARGV[at + 1 + place])]
      redis.call('XADD', stream, '*', 'event', ARGV[at + 2 + count])
    end
  end
  added[#added + 1] = is_news
  at = at + 3 + count
end
local trimmed = {}
for place = 1, streams do
  local stream = KEYS[1 + place]
  trimmed[place] = {
    redis.call('XTRIM', stream, 'MAXLEN', ARGV[1 + place]),
    redis.call('XLEN', stream),
  }
  redis.call('PEXPIRE', stream, keep)
end
return {added, trimmed}
