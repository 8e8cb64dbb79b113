-- ARGV: plugin, id, decision.
if get('id') ~= ARGV[2] or not is_open() then
    return {'lost', ''}
end
clear_proposal()
set('decided', ARGV[3])
local number = redis.call('HINCRBY', board, 'number:' .. plugin, 1)
return {'ok', tostring(number)}
