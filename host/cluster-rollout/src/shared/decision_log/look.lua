-- ARGV: plugins. For each of them the decision, and the proposal that is open.
local all = {}
for _, name in ipairs(ARGV) do
    plugin = name
    all[#all + 1] = bounded('decided')
    all[#all + 1] = is_open() and bounded('proposed') or ''
end
return all
