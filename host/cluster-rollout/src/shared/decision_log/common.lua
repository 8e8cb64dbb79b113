-- KEYS[1] is the board, ARGV[1] the plugin. Times are milliseconds of this server's clock. Anybody may have written anything.
local board, plugin = KEYS[1], ARGV[1]
-- No text of a node is longer, and no lease ends later.
local TEXT_BYTES_MAX, LEASE_MAX = 16384, 20000

local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function get(what)
    return redis.call('HGET', board, what .. ':' .. plugin) or ''
end
local function set(what, value)
    redis.call('HSET', board, what .. ':' .. plugin, value)
end
-- The text; one that no node wrote, as its length says, is thrown away.
local function bounded(what)
    local field = what .. ':' .. plugin
    if redis.call('HSTRLEN', board, field) > TEXT_BYTES_MAX then
        redis.call('HDEL', board, field)
    end
    return get(what)
end
local function clear_proposal()
    redis.call('HDEL', board, 'proposed:' .. plugin, 'id:' .. plugin, 'until:' .. plugin)
end
local function is_open()
    local left = (tonumber(get('until')) or 0) - now()
    return left > 0 and left <= LEASE_MAX
end
local function set_until(lease)
    set('until', string.format('%.0f', now() + tonumber(lease)))
end
