-- ARGV: plugin, decision. Without a proposal, and not beside one.
if is_open() then
    return {'busy', get('proposed')}
end
set('decided', ARGV[2])
local number = redis.call('HINCRBY', board, 'number:' .. plugin, 1)
return {'ok', tostring(number)}
