--[[
  The other side said "too fast": nobody of this scope tries again for a while, each time in a row longer.

  KEYS  1 blocked until, 2 how often in a row
  ARGV  1 first wait (ms), 2 growth, 3 longest wait (ms)
  Gives the milliseconds to wait.
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local left = tonumber(redis.call('GET', KEYS[1]) or 0) - now
if left > 0 then return math.ceil(left) end -- said of the same burst: one step, not one for each message of it

local strikes = redis.call('INCR', KEYS[2])
local wait = math.min(tonumber(ARGV[1]) * math.pow(tonumber(ARGV[2]), strikes - 1), tonumber(ARGV[3]))
wait = math.max(1, math.ceil(wait))
redis.call('SET', KEYS[1], string.format('%.0f', now + wait), 'PX', wait)
redis.call('PEXPIRE', KEYS[2], wait * 2 + 60000)
return wait
