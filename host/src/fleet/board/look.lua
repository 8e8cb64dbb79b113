-- All that stands on the board, and the time.
return {string.format('%.0f', now()), redis.call('HGETALL', board)}
