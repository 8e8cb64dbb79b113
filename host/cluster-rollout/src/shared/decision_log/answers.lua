-- KEYS[1]: the answers to one proposal. ARGV: nodes. What each of them says; '' for nothing, or more than a node says.
local all = {}
for index, node in ipairs(ARGV) do
    local is_short = redis.call('HSTRLEN', KEYS[1], node) <= 16384
    all[index] = is_short and redis.call('HGET', KEYS[1], node) or ''
end
return all
