--[[
  A reader looks at a conversation, or goes on looking; who does not say so again in time counts no more.

  KEYS  1 readers, by when they expire
  ARGV  1 reader, 2 time to live (ms), 3 how many others may look (-1 for any number)
  Gives 1, or 0 where so many others look already.
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most = tonumber(ARGV[3])

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if most >= 0 then
  local others = redis.call('ZCARD', KEYS[1])
  if redis.call('ZSCORE', KEYS[1], ARGV[1]) then others = others - 1 end
  if others >= most then return 0 end
end

redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
