-- ARGV: plugin, the decision before, decision. Without a proposal, and not beside one.
if is_open() then
    return {'busy', bounded('proposed')}
end
if bounded('decided') ~= ARGV[2] then
    return {'changed', ''}
end
set('decided', ARGV[3])
return {'ok', ''}
