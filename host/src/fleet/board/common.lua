-- KEYS[1] is the board, ARGV[1] the plugin. Times are milliseconds of this server's clock.
local board, plugin = KEYS[1], ARGV[1]
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function get(what)
    return redis.call('HGET', board, what .. ':' .. plugin)
end
local function set(what, value)
    redis.call('HSET', board, what .. ':' .. plugin, value)
end
local function clear_proposal()
    redis.call('HDEL', board, 'proposed:' .. plugin, 'id:' .. plugin, 'until:' .. plugin)
end
local function is_open()
    local over = tonumber(get('until') or '0')
    return over > now()
end
local function set_until(lease)
    set('until', string.format('%.0f', now() + tonumber(lease)))
end
