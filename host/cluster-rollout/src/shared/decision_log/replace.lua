-- ARGV: plugin, the decision before, decision. Whatever is proposed.
if bounded('decided') ~= ARGV[2] then
    return {'changed', ''}
end
set('decided', ARGV[3])
return {'ok', ''}
