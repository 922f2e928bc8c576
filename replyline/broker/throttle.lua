--[[
  One token of each of several buckets, or of none.

  Virtual scheduling (GCRA): `tat` is when the bucket would be full again. What is stored is never trusted to be further ahead
  than an empty bucket's: a clock that went back, or a burst that was made smaller, must not shut anybody out for long.

  KEYS  one for each bucket
  ARGV  interval (ms), burst; for each bucket
  Gives {0, 0}, or of the bucket that needs longest {its number from 1, milliseconds to wait}.
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000

local tats, which, longest = {}, 0, 0
for number, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[number * 2 - 1])
  local full = tonumber(ARGV[number * 2]) * interval
  local tat = math.min(math.max(tonumber(redis.call('GET', key) or 0), now), now + full) + interval
  local wait = tat - full - now
  if wait > longest then which, longest = number, wait end
  tats[number] = tat
end
if which > 0 then return {which, math.ceil(longest)} end

for number, key in ipairs(KEYS) do
  redis.call('SET', key, string.format('%.3f', tats[number]), 'PX', math.ceil(tats[number] - now))
end
return {0, 0}
