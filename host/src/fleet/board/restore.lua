-- ARGV: plugin, number, decision. Only a later decision is worth more.
if tonumber(get('number') or '0') >= tonumber(ARGV[2]) then
    return {'known', ''}
end
set('decided', ARGV[3])
set('number', ARGV[2])
return {'ok', ''}
