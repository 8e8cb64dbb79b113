-- ARGV[3]: the new value; [4]: milliseconds that it is kept, or ''; [5]: 'always', or only where the value still is
-- 'absent' or 'equal' to [6].
if ARGV[5] ~= 'always' then
  local expected = ARGV[5] == 'equal' and ARGV[6]
  if redis.call('GET', VALUE) ~= expected then
    return { 'differs' }
  end
end
local size = size_of(#ARGV[3])
local status = room_for(size)
if status == 'ok' then
  local ends = end_of(ARGV[4])
  if ends and ends > now then
    redis.call('SET', VALUE, ARGV[3], 'PX', ARGV[4])
  elseif ends then
    redis.call('DEL', VALUE)
  else
    redis.call('SET', VALUE, ARGV[3])
  end
  note(size, ends)
end
save()
return { status }
