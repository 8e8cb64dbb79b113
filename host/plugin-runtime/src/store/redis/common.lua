-- Comes before each script: what there is, and what it takes up. store/redis.rs explains the keys.
local VALUE, LASTING, PASSING = KEYS[1], KEYS[2], KEYS[3]
local key, bytes_max = ARGV[1], tonumber(ARGV[2])

-- The member of PASSING whose score is minus the bytes of all others. No other is spelled so: those have a colon.
local SUM = 'sum'
-- What a value takes up beside its bytes and those of its key, as in store/mod.rs.
local ENTRY_BYTES = 256
-- Values that are struck off at most: by each write, and by one that would else find no room.
local SWEEP, SWEEP_FOR_ROOM = 16, 1000
-- PASSING lives for so many milliseconds longer than its last value, at least and at most: so not each write sets its time.
local OUTLIVES, OUTLIVES_AT_MOST = 500, 2000

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

-- Milliseconds that the value has left; -1: it is kept for good; -2: there is none.
local left = redis.call('PTTL', VALUE)
local function size_of(value_bytes)
  return ENTRY_BYTES + #key + value_bytes
end
local old_size = 0
if left ~= -2 then
  old_size = size_of(redis.call('STRLEN', VALUE))
end

local lasting = tonumber(redis.call('GET', LASTING) or 0)
local passing = -tonumber(redis.call('ZSCORE', PASSING, SUM) or 0)
local lasting_before, passing_before = lasting, passing

local function member(size)
  return string.format('%d:', size) .. key
end

-- Strikes off values whose time is over, the oldest first, and returns how many.
local function sweep(most)
  local over = redis.call('ZRANGEBYSCORE', PASSING, 0, now - 1, 'LIMIT', 0, most)
  if #over > 0 then
    for _, one in ipairs(over) do
      passing = passing - tonumber(string.match(one, '^%d+'))
    end
    redis.call('ZREM', PASSING, unpack(over))
  end
  return #over
end

-- Whether the value may take up `size`: 'ok', 'full', or 'again' where there was more to strike off than one call does.
local function room_for(size)
  local function fits()
    return lasting + passing - old_size + size <= bytes_max
  end
  sweep(SWEEP)
  if fits() then
    return 'ok'
  end
  local swept = sweep(SWEEP_FOR_ROOM)
  if fits() then
    return 'ok'
  end
  return swept == SWEEP_FOR_ROOM and 'again' or 'full'
end

local function strike_off_old()
  if left == -1 then
    lasting = lasting - old_size
  elseif left >= 0 and redis.call('ZREM', PASSING, member(old_size)) == 1 then
    passing = passing - old_size
  end
end

-- Notes what the value takes up from now on, and when its time is over (false: never).
local function note(size, ends)
  -- Redis drops at once what ends now.
  local is_dropped = ends and ends <= now
  local keeps_its_place = ends and not is_dropped and left >= 0 and size == old_size
  if not keeps_its_place then
    strike_off_old()
  end
  if not ends then
    lasting = lasting + size
    return
  elseif is_dropped then
    return
  end
  -- It is there already, and counted, where it was, or where an earlier value of this size is over and not struck off.
  if redis.call('ZADD', PASSING, ends, member(size)) == 1 then
    passing = passing + size
  end
  if redis.call('PTTL', PASSING) < ends - now + OUTLIVES then
    redis.call('PEXPIREAT', PASSING, ends + OUTLIVES_AT_MOST)
  end
end

-- Writes down the sums.
local function save()
  if lasting ~= lasting_before then
    if lasting > 0 then
      redis.call('SET', LASTING, lasting)
    else
      redis.call('DEL', LASTING)
    end
  end
  if passing ~= passing_before then
    if passing > 0 then
      redis.call('ZADD', PASSING, -passing, SUM)
    else
      redis.call('ZREM', PASSING, SUM)
    end
  end
end

-- When a value ends that gets `ttl` milliseconds now; '' stands for never.
local function end_of(ttl)
  return ttl ~= '' and now + tonumber(ttl)
end
