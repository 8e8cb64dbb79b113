if left ~= -2 then
  strike_off_old()
  redis.call('DEL', VALUE)
end
sweep(SWEEP)
save()
return { 'ok' }
