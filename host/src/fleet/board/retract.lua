-- ARGV: plugin, number, decision. Takes back the decision with this number, unless there is another one by now.
if get('number') ~= ARGV[2] then
    return {'lost', ''}
end
set('decided', ARGV[3])
local number = redis.call('HINCRBY', board, 'number:' .. plugin, 1)
return {'ok', tostring(number)}
