-- ARGV[3]: what to add; [4]: milliseconds that a new value is kept, or ''. Returns a status, and the sum as text: a
-- number of Lua holds only 53 of its 64 bits.
local old = redis.call('GET', VALUE)
local added = redis.pcall('INCRBY', VALUE, ARGV[3])
if type(added) == 'table' then
  local is_no_number = string.find(added.err, 'not an integer') or string.find(added.err, 'overflow')
  return is_no_number and { 'not-a-number' } or added
end
local sum = redis.call('GET', VALUE)
local size = size_of(#sum)
local status = room_for(size)
if status ~= 'ok' then
  if old then
    redis.call('SET', VALUE, old)
    if left >= 0 then
      redis.call('PEXPIREAT', VALUE, now + left)
    end
  else
    redis.call('DEL', VALUE)
  end
  save()
  return { status }
end
if left == -2 then
  local ends = end_of(ARGV[4])
  if ends then
    redis.call('PEXPIREAT', VALUE, ends)
  end
  note(size, ends)
elseif size ~= old_size then
  note(size, left >= 0 and now + left)
end
save()
return { status, sum }
