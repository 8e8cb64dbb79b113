-- ARGV: plugin, id, lease in ms.
if get('id') ~= ARGV[2] or not is_open() then
    return {'lost', ''}
end
set_until(ARGV[3])
return {'ok', ''}
