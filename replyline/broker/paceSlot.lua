--[[
  When a message may leave: a slot of its recipient, then one of its account, each reserved for this message alone.

  A slot in the future is kept under a ticket, so that who comes back at its time goes through, and a thousand who wait are told
  a thousand times, not one. Both are virtual scheduling (GCRA): `tat` is when the bucket would be full again. Those who come back
  late come in a bunch, so what really leaves is counted once more, in a bucket of its own.

  KEYS  1 account tat, 2 account blocked until, 3 recipient tat, 4 recipient blocked until, 5 ticket, 6 count of the day,
        7 tat of what left
  ARGV  1 account interval, 2 account burst, 3 recipient interval, 4 recipient burst (intervals in ms, 0 is no limit),
        5 messages a day (0 is no limit), 6 how long a ticket outlives its time (ms), 7 a random number below 1
  Gives {milliseconds to wait, what for}: 0 'go', else 'recipient', 'account' or 'day'.
]]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local EARLY = 3 -- ms: two clocks and a timer need not agree to the millisecond

local function slot(key, interval, burst)
  if interval <= 0 then return now end
  local tat = math.max(tonumber(redis.call('GET', key) or 0), now) + interval
  redis.call('SET', key, string.format('%.3f', tat), 'PX', math.ceil(tat - now) + 1000)
  return math.max(now, tat - burst * interval)
end

local function blocked(key)
  return tonumber(redis.call('GET', key) or 0) - now
end

local function wait_until(at, stage, what)
  local wait = math.ceil(at - now)
  redis.call('SET', KEYS[5], string.format('%d:%.0f', stage, at), 'PX', wait + tonumber(ARGV[6]))
  return {wait, what}
end

local ticket = redis.call('GET', KEYS[5])
local stage = 0
if ticket then
  local colon = string.find(ticket, ':', 1, true)
  stage = tonumber(string.sub(ticket, 1, colon - 1))
  local at = tonumber(string.sub(ticket, colon + 1))
  if at > now + EARLY then return {math.ceil(at - now), stage == 1 and 'recipient' or 'account'} end
end

local hold = blocked(KEYS[4])
if hold > EARLY then return {math.ceil(hold), 'recipient'} end
hold = blocked(KEYS[2])
if hold > EARLY then return {math.ceil(hold), 'account'} end

if stage == 0 then
  local at = slot(KEYS[3], tonumber(ARGV[3]), tonumber(ARGV[4]))
  if at > now + EARLY then return wait_until(at, 1, 'recipient') end
end

local per_day = tonumber(ARGV[5])
if per_day > 0 and tonumber(redis.call('GET', KEYS[6]) or 0) >= per_day then
  return {86400000 - (now % 86400000), 'day'}
end

if stage < 2 then
  local at = slot(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]))
  if at > now + EARLY then return wait_until(at, 2, 'account') end
end

local interval = tonumber(ARGV[1])
if interval > 0 then
  local tat = math.max(tonumber(redis.call('GET', KEYS[7]) or 0), now) + interval
  local early = tat - tonumber(ARGV[2]) * interval - now
  if early > EARLY then return wait_until(now + early * (1 + tonumber(ARGV[7])), 2, 'account') end
  redis.call('SET', KEYS[7], string.format('%.3f', tat), 'PX', math.ceil(tat - now) + 1000)
end

redis.call('DEL', KEYS[5])
if per_day > 0 then
  redis.call('INCR', KEYS[6])
  redis.call('PEXPIRE', KEYS[6], 172800000)
end
return {0, 'go'}
