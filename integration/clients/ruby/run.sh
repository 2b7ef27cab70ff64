debian ruby-bunny || return
program bunny "$(debian_version ruby-bunny)" extensions ruby extensions.rb
