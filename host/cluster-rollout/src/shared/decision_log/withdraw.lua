-- ARGV: plugin, id.
if get('id') == ARGV[2] then
    clear_proposal()
end
return {'ok', ''}
