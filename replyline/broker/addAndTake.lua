--[[
  Adds a job that has a priority, and takes what is then the first of its queue: BullMQ's `addPrioritizedJob` (here `add`) and
  `moveToActive` (here `take`) as one call. `scripts.py` puts the two before this text.

  If nothing waits then, the marker goes, or workers would wake for nothing, and so does the counter that orders jobs of one
  priority, as with a `take` that finds nothing.

  KEYS  1 marker, 2 meta, 3 id, 4 prioritized, 5 delayed, 6 completed, 7 active, 8 events, 9 pc, 10 wait, 11 stalled,
        12 limiter, 13 paused
  ARGV  1-3 what `add` takes; 4-6 what `take` takes
  Gives what `take` gives.
]]
add(
  {KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]},
  {ARGV[1], ARGV[2], ARGV[3]}
)
local taken = take(
  {KEYS[10], KEYS[7], KEYS[4], KEYS[8], KEYS[11], KEYS[12], KEYS[5], KEYS[13], KEYS[2], KEYS[9], KEYS[1]},
  {ARGV[4], ARGV[5], ARGV[6]}
)
if redis.call('LLEN', KEYS[10]) == 0 and redis.call('ZCARD', KEYS[4]) == 0 then
  redis.call('ZREM', KEYS[1], '0')
  redis.call('DEL', KEYS[9])
end
return taken
