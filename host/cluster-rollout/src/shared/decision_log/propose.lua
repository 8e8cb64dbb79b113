-- ARGV: plugin, id, proposal, lease in ms.
if is_open() then
    return {'busy', bounded('proposed')}
end
set('proposed', ARGV[3])
set('id', ARGV[2])
set_until(ARGV[4])
return {'ok', ''}
