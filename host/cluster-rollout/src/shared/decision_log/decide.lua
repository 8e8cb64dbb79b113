-- ARGV: plugin, id, the decision before, decision.
if get('id') ~= ARGV[2] or not is_open() then
    return {'lost', ''}
end
if bounded('decided') ~= ARGV[3] then
    return {'changed', ''}
end
clear_proposal()
set('decided', ARGV[4])
return {'ok', ''}
