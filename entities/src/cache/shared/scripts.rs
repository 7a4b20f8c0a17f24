//! What Redis runs by itself, in one step. Not here: who asks for it.

/// The process and the course of its data: another one after each promotion, and after each start.
macro_rules! history {
    () => {
        r"
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local course = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') or ''
local history = tonumber(string.sub(redis.sha1hex(run .. course), 1, 12), 16)
"
    };
}

/// Before anything else on a connection: a table that was made in another history (on a master that was
/// replaced, before this server followed another one, before it was restarted with its own snapshot) may lack
/// invalidations, and is thrown away. Word 2 says in which it was made. Where others may still tell another
/// master of invalidations (argument 0), nothing is begun here.
pub(super) const CONNECTION_HOOK: &str = concat!(
    r"
local g, l = KEYS[1], KEYS[2]
",
    history!(),
    r"
local table = redis.call('BITFIELD_RO', g, 'GET', 'i64', '#0', 'GET', 'i64', '#2')
if table[1] ~= 0 and table[2] == history then return 1 end
if ARGV[1] ~= '1' then return redis.error_reply('UNSETTLED others may use another master still') end
if table[1] ~= 0 then redis.call('DEL', g, l) end
return 1
"
);
/// Numbers must stay below 2^53 for Redis's Lua; the epoch is random, and never 0.
pub(super) const INVALIDATE_SCRIPT: &str = concat!(
    r"
local g, l = KEYS[1], KEYS[2]
local epoch = redis.call('BITFIELD', g, 'GET', 'i64', '#0')[1]
if epoch == 0 then
  epoch = tonumber(ARGV[1])
",
    history!(),
    r"
  redis.call('DEL', l)
  redis.call('BITFIELD', g, 'SET', 'i64', '#0', ARGV[1], 'SET', 'i64', '#1', 1,
    'SET', 'i64', '#2', string.format('%.0f', history), 'SET', 'i64', '#3', 1)
end
if #ARGV == 1 then return redis.call('BITFIELD', g, 'GET', 'i64', '#0', 'GET', 'i64', '#1') end
local s = redis.call('BITFIELD', g, 'INCRBY', 'i64', '#1', 1)[1]
local set = {'BITFIELD', g}
for i = 2, #ARGV do
  set[#set + 1] = 'SET'; set[#set + 1] = 'i64'; set[#set + 1] = '#' .. ARGV[i];
  set[#set + 1] = string.format('%.0f', s)
end
redis.call(unpack(set))
redis.call('XADD', l, 'MAXLEN', '~', 10000, string.format('%.0f-0', s), 's', table.concat(ARGV, ',', 2))
return {epoch, s}
"
);
