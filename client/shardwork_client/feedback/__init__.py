"""What `shardwork feedback` shows: `page` ratings, reports and progress, `voting` something to judge."""
