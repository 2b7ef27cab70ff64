#!/usr/bin/env escript
%% The scenarios of integration/clients/README.md through Erlang's amqp_client, which Elixir's amqp and Broadway are built on.
-mode(compile).
-include_lib("amqp_client/include/amqp_client.hrl").

-define(PATIENCE, 30000). % milliseconds for anything that must happen

main(_) ->
    logger:set_primary_config(level, none), % of connections that are lost on purpose
    {ok, _} = application:ensure_all_started(amqp_client),
    Checks = [{"recovery", "AMQP_CTL", fun recovery/0}, {"confirms", fun confirms/2}, {"returns", fun returns/2}, {"prefetch", fun prefetch/2},
              {"retry", fun retry/2}, {"rpc", fun rpc/2}, {"blocked", "AMQP_CTL", fun blocked/0}, {"tls", "AMQPS_URL", fun tls/0},
              {"cancel", fun cancel/2}, {"bodies", fun bodies/2}, {"headers", fun headers/2}],
    Results = [check(C) || C <- Checks],
    Failed = length([x || failed <- Results]),
    io:format("~b passed, ~b failed~n", [length([x || passed <- Results]), Failed]),
    halt(min(Failed, 1)).

%% A check runs in a process of its own, which ends with its connections.
check({Name, Variable, Check}) ->
    case os:getenv(Variable) of
        false -> io:format("skip ~s: without ~s~n", [Name, Variable]), skipped;
        _ -> outcome(Name, Check)
    end;
check({Name, Check}) ->
    outcome(Name, fun() ->
        Connection = connect(),
        {ok, Channel} = amqp_connection:open_channel(Connection),
        Check(Connection, Channel),
        ok = amqp_connection:close(Connection)
    end).

outcome(Name, Check) ->
    {Pid, Ref} = spawn_monitor(Check),
    receive
        {'DOWN', Ref, process, Pid, normal} -> io:format("ok   ~s~n", [Name]), passed;
        {'DOWN', Ref, process, Pid, Why} -> io:format("FAIL ~s~n~p~n", [Name, Why]), failed
    after 4 * ?PATIENCE -> exit(Pid, kill), io:format("FAIL ~s~nnot done in time~n", [Name]), failed
    end.

%% A URL that ends in a slash names the vhost "" for this client.
parameters(Variable) ->
    {ok, P} = amqp_uri:parse(string:trim(os:getenv(Variable, "amqp://guest:guest@localhost:5672"), trailing, "/")),
    P.

connect() ->
    {ok, Connection} = amqp_connection:start(parameters("AMQP_URL")),
    Connection.

name(Hint) -> iolist_to_binary(["clients-erl-", os:getpid(), "-", Hint]).

control(Verb) ->
    Port = open_port({spawn_executable, os:getenv("AMQP_CTL")}, [{args, [Verb]}, exit_status, stderr_to_stdout]),
    (fun Wait() -> receive {Port, {exit_status, 0}} -> ok; {Port, {data, _}} -> Wait() end end)().

next() -> receive Message -> Message after ?PATIENCE -> exit(nothing_came) end.

eventually(F) -> eventually(F, erlang:monotonic_time(millisecond) + ?PATIENCE).
eventually(F, End) ->
    try F()
    catch Class:Reason ->
        case erlang:monotonic_time(millisecond) > End of
            true -> erlang:raise(Class, Reason, []);
            false -> timer:sleep(50), eventually(F, End)
        end
    end.

declare(Channel, Declare) ->
    #'queue.declare_ok'{queue = Queue} = amqp_channel:call(Channel, Declare),
    Queue.

exclusive(Channel) -> declare(Channel, #'queue.declare'{exclusive = true}).

ready(Channel, Queue) ->
    #'queue.declare_ok'{message_count = N} = amqp_channel:call(Channel, #'queue.declare'{queue = Queue, passive = true}),
    N.

publish(Channel, Key, Body) -> publish(Channel, <<>>, Key, Body, #'P_basic'{delivery_mode = 2}).
publish(Channel, Exchange, Key, Body, Properties) ->
    ok = amqp_channel:call(Channel, #'basic.publish'{exchange = Exchange, routing_key = Key}, #amqp_msg{props = Properties, payload = Body}).

consume(Channel, Queue, NoAck) ->
    #'basic.consume_ok'{consumer_tag = Tag} = amqp_channel:subscribe(Channel, #'basic.consume'{queue = Queue, no_ack = NoAck}, self()),
    #'basic.consume_ok'{} = next(),
    Tag.

delivery() ->
    {#'basic.deliver'{delivery_tag = Tag}, #amqp_msg{payload = Body, props = P}} = next(),
    {Tag, Body, P}.

confirms(_, Channel) ->
    Queue = declare(Channel, #'queue.declare'{queue = name("confirms"), durable = true}),
    #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
    [publish(Channel, Queue, integer_to_binary(I)) || I <- lists:seq(1, 1000)],
    true = amqp_channel:wait_for_confirms(Channel, ?PATIENCE div 1000),
    #'queue.delete_ok'{message_count = 1000} = amqp_channel:call(Channel, #'queue.delete'{queue = Queue}).

returns(_, Channel) ->
    Queue = exclusive(Channel),
    ok = amqp_channel:register_return_handler(Channel, self()),
    ok = amqp_channel:register_confirm_handler(Channel, self()),
    #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
    Mandatory = fun(Key, Body) ->
        ok = amqp_channel:call(Channel, #'basic.publish'{routing_key = Key, mandatory = true}, #amqp_msg{payload = Body})
    end,
    Mandatory(name("nobody"), <<"lost">>),
    {#'basic.return'{reply_code = 312, reply_text = <<"NO_ROUTE">>}, #amqp_msg{payload = <<"lost">>}} = next(),
    #'basic.ack'{delivery_tag = 1} = next(),
    Mandatory(Queue, <<"found">>),
    #'basic.ack'{delivery_tag = 2} = next().

prefetch(_, Channel) ->
    Queue = exclusive(Channel),
    [publish(Channel, Queue, integer_to_binary(I)) || I <- lists:seq(1, 10)],
    #'basic.qos_ok'{} = amqp_channel:call(Channel, #'basic.qos'{prefetch_count = 5}),
    consume(Channel, Queue, false),
    Take = fun(From, To) -> [begin B = integer_to_binary(I), {T, B, _} = delivery(), T end || I <- lists:seq(From, To)] end,
    First = hd(Take(1, 5)),
    5 = ready(Channel, Queue),
    amqp_channel:cast(Channel, #'basic.ack'{delivery_tag = First}),
    [Sixth] = Take(6, 6),
    4 = ready(Channel, Queue),
    amqp_channel:cast(Channel, #'basic.ack'{delivery_tag = Sixth, multiple = true}),
    Take(7, 10).

%% As Broadway does with on_failure: reject.
retry(_, Channel) ->
    Work = declare(Channel, #'queue.declare'{queue = name("work"), exclusive = true, arguments = letters(name("wait"))}),
    declare(Channel, #'queue.declare'{queue = name("wait"), exclusive = true, arguments = [{<<"x-message-ttl">>, signedint, 50} | letters(Work)]}),
    consume(Channel, Work, false),
    publish(Channel, Work, <<"job">>),
    [begin
        {Tag, <<"job">>, #'P_basic'{headers = Headers}} = delivery(),
        Try = rejections(Headers, Work),
        amqp_channel:cast(Channel, #'basic.reject'{delivery_tag = Tag, requeue = false})
     end || Try <- lists:seq(0, 3)].

letters(Queue) -> [{<<"x-dead-letter-exchange">>, longstr, <<>>}, {<<"x-dead-letter-routing-key">>, longstr, Queue}].

rejections(undefined, _) -> 0;
rejections(Headers, Queue) ->
    {_, array, Deaths} = lists:keyfind(<<"x-death">>, 1, Headers),
    [Count] = [element(3, lists:keyfind(<<"count">>, 1, D)) || {table, D} <- Deaths, lists:member({<<"queue">>, longstr, Queue}, D),
               lists:member({<<"reason">>, longstr, <<"rejected">>}, D)],
    Count.

rpc(Connection, Channel) ->
    Queue = name("rpc"),
    Server = amqp_rpc_server:start(Connection, Queue, fun(N) -> integer_to_binary(2 * binary_to_integer(N)) end),
    {ok, Own} = amqp_connection:open_channel(Connection),
    consume(Own, <<"amq.rabbitmq.reply-to">>, true),
    [publish(Own, <<>>, Queue, integer_to_binary(I), #'P_basic'{reply_to = <<"amq.rabbitmq.reply-to">>, correlation_id = integer_to_binary(I)})
     || I <- lists:seq(1, 20)],
    Answers = [begin {_, Body, #'P_basic'{correlation_id = Id}} = delivery(), {binary_to_integer(Id), binary_to_integer(Body)} end || _ <- lists:seq(1, 20)],
    true = lists:sort(Answers) =:= [{I, 2 * I} || I <- lists:seq(1, 20)],
    amqp_rpc_server:stop(Server),
    amqp_channel:call(Channel, #'queue.delete'{queue = Queue}).

blocked() ->
    Connection = connect(),
    ok = amqp_connection:register_blocked_handler(Connection, self()),
    {ok, Channel} = amqp_connection:open_channel(Connection),
    Queue = declare(Channel, #'queue.declare'{queue = name("blocked"), durable = true}),
    #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
    publish(Channel, Queue, <<"before">>),
    true = amqp_channel:wait_for_confirms(Channel, ?PATIENCE div 1000),
    control("block"),
    publish(Channel, Queue, <<"first">>), % by which a broker may notice
    #'connection.blocked'{reason = <<"low on memory">>} = next(),
    publish(Channel, Queue, <<"held">>),
    Other = connect(),
    {ok, Consumer} = amqp_connection:open_channel(Other),
    consume(Consumer, Queue, true),
    {_, <<"before">>, _} = delivery(),
    control("unblock"),
    ok = receive #'connection.unblocked'{} -> ok after ?PATIENCE -> still_blocked end,
    {_, <<"first">>, _} = delivery(),
    {_, <<"held">>, _} = delivery(),
    true = amqp_channel:wait_for_confirms(Channel, ?PATIENCE div 1000),
    amqp_channel:call(Channel, #'queue.delete'{queue = Queue}),
    [ok = amqp_connection:close(C) || C <- [Connection, Other]].

tls() ->
    File = fun(F) -> filename:join(os:getenv("BROKER_TLS"), F ++ ".pem") end,
    P = parameters("AMQPS_URL"),
    Connect = fun(Own) ->
        amqp_connection:start(P#amqp_params_network{ssl_options = Own ++ [{cacertfile, File("ca")}, {verify, verify_peer}, {server_name_indication, "localhost"}]})
    end,
    Certificate = fun(Of) -> [{certfile, File(Of)}, {keyfile, File(Of ++ "-key")}] end,
    {ok, Connection} = Connect(Certificate("client")),
    {ok, Channel} = amqp_connection:open_channel(Connection),
    Queue = exclusive(Channel),
    consume(Channel, Queue, true),
    publish(Channel, Queue, <<"safe">>),
    {_, <<"safe">>, _} = delivery(),
    ok = amqp_connection:close(Connection),
    {error, _} = Connect(Certificate("other")),
    {error, _} = Connect([]).

cancel(Connection, Channel) ->
    Queue = declare(Channel, #'queue.declare'{queue = name("gone")}),
    Tag = consume(Channel, Queue, false),
    {ok, Other} = amqp_connection:open_channel(Connection),
    amqp_channel:call(Other, #'queue.delete'{queue = Queue}),
    #'basic.cancel'{consumer_tag = Tag} = next().

bodies(_, Channel) ->
    Queue = exclusive(Channel),
    consume(Channel, Queue, true),
    [begin
        Body = rand:bytes(Size),
        publish(Channel, Queue, Body),
        {_, Body, _} = delivery()
     end || Size <- [0, 1, 131072 - 8, 131072 - 7, 131072, 4 bsl 20]].

headers(_, Channel) ->
    Queue = exclusive(Channel),
    consume(Channel, Queue, true),
    Headers = [{<<"array">>, array, [{signedint, 1}, {longstr, <<"two">>}, {array, [{long, 3}]}]}, {<<"bytes">>, binary, <<0, 255>>},
               {<<"decimal">>, decimal, {2, 12345}}, {<<"double">>, double, 1.25}, {<<"empty">>, longstr, <<>>}, {<<"false">>, bool, false},
               {<<"float">>, float, 0.5}, {<<"i16">>, short, -300}, {<<"i32">>, signedint, -70000}, {<<"i64">>, long, -(1 bsl 63)}, {<<"i8">>, byte, -8},
               {<<"null">>, void, undefined}, {<<"table">>, table, [{<<"deeper">>, signedint, 1}]}, {<<"text">>, longstr, <<"grün 🐇"/utf8>>},
               {<<"time">>, timestamp, 1700000000}, {<<"true">>, bool, true}, {<<"u16">>, unsignedshort, 60000}, {<<"u32">>, unsignedint, 4000000000},
               {<<"u8">>, unsignedbyte, 200}],
    P = #'P_basic'{headers = Headers, content_type = <<"text/plain">>, content_encoding = <<"utf-8">>, delivery_mode = 2, priority = 9, correlation_id = <<"c">>,
                   reply_to = <<"r">>, expiration = <<"100000">>, message_id = <<"m">>, timestamp = 1700000000, type = <<"t">>, app_id = <<"a">>},
    publish(Channel, <<>>, Queue, <<"x">>, P),
    {_, <<"x">>, Got} = delivery(),
    case Got#'P_basic'{headers = lists:sort(Got#'P_basic'.headers)} of
        P -> ok;
        Other -> exit({got, Other})
    end.

%% A process that connects again, as a supervisor would have it.
recovery() ->
    Queue = name("recovery"),
    Session = fun() -> eventually(fun() ->
        {ok, Connection} = amqp_connection:start(parameters("AMQP_URL")),
        {ok, Channel} = amqp_connection:open_channel(Connection),
        declare(Channel, #'queue.declare'{queue = Queue, durable = true}),
        declare(Channel, #'queue.declare'{queue = name("recovery-mine"), exclusive = true}), % of a dead connection it is free at once
        #'confirm.select_ok'{} = amqp_channel:call(Channel, #'confirm.select'{}),
        {Connection, Channel}
    end) end,
    Publish = fun Again({Connection, Channel}, Body) ->
        try
            publish(Channel, Queue, Body),
            true = amqp_channel:wait_for_confirms(Channel, ?PATIENCE div 1000),
            {Connection, Channel}
        catch _:_ -> Again(Session(), Body)
        end
    end,
    {Connection, Channel} = lists:foldl(fun(I, S) ->
        case I =:= 100 orelse I =:= 200 of true -> control("kill"), control("start"); false -> ok end,
        Publish(S, integer_to_binary(I))
    end, Session(), lists:seq(1, 300)),
    amqp_channel:call(Channel, #'basic.qos'{prefetch_count = 10}),
    consume(Channel, Queue, false),
    (fun Take(Missing) when map_size(Missing) =:= 0 -> ok;
         Take(Missing) ->
            {Tag, Body, _} = delivery(),
            amqp_channel:cast(Channel, #'basic.ack'{delivery_tag = Tag}),
            Take(maps:remove(Body, Missing))
    end)(maps:from_keys([integer_to_binary(I) || I <- lists:seq(1, 300)], x)),
    amqp_channel:call(Channel, #'queue.delete'{queue = Queue}),
    ok = amqp_connection:close(Connection).
